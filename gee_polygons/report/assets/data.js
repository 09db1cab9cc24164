// The data of the page: what Python wrote into the element with the id "data".

export const report = JSON.parse(document.getElementById('data').textContent);
export const sites = report.sites;
export const siteById = new Map(sites.map((site) => [site.id, site]));
export const hasRecovery = report.hasRecovery;
