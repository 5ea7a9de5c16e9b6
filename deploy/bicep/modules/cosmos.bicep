// The account, database and container of the copy, and the daemon's right to read and write in it.

@description('Region of the account: the only one, and so the only one that takes writes.')
param location string

@description('Name of the account; a part of its host name.')
@minLength(3)
@maxLength(44)
param accountName string

@description('Name of the database.')
@minLength(1)
@maxLength(255)
param databaseName string

@description('Name of the container.')
@minLength(1)
@maxLength(255)
param containerName string

@description('How throughput is paid for.')
@allowed([
  'autoscale'
  'manual'
  'serverless'
])
param throughputMode string

@description('Request units per second: the maximum with autoscale (in thousands), the fixed value with manual (in hundreds). Serverless has none.')
@minValue(400)
param throughput int

@description('Whether the account is spread over the region\'s availability zones.')
param zoneRedundant bool

@description('Whether the account can be reached from outside private endpoints.')
@allowed([
  'Enabled'
  'Disabled'
])
param publicNetworkAccess string

@description('Object id of the daemon\'s identity.')
param principalId string

@description('Tags of the account.')
param tags object

var roles = loadJsonContent('../roles.json')
var serverlessCapabilities = [
  {
    name: 'EnableServerless'
  }
]
var autoscaleOptions = {
  autoscaleSettings: {
    maxThroughput: throughput
  }
}
var manualOptions = {
  throughput: throughput
}
var provisionedOptions = throughputMode == 'autoscale' ? autoscaleOptions : manualOptions

resource account 'Microsoft.DocumentDB/databaseAccounts@2024-11-15' = {
  name: accountName
  location: location
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    // With less, a read need not see what was written before it.
    consistencyPolicy: {
      defaultConsistencyLevel: 'Session'
    }
    // Conditions on writes hold within one region: with several, the last writer wins and nobody is told.
    enableMultipleWriteLocations: false
    enableAutomaticFailover: false
    locations: [
      {
        locationName: location
        failoverPriority: 0
        isZoneRedundant: zoneRedundant
      }
    ]
    capabilities: throughputMode == 'serverless' ? serverlessCapabilities : []
    // Everything comes with tokens: keys would be a second way in.
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    minimalTlsVersion: 'Tls12'
    publicNetworkAccess: publicNetworkAccess
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2024-11-15' = {
  parent: account
  name: databaseName
  properties: {
    resource: {
      id: databaseName
    }
  }
}

resource container 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15' = {
  parent: database
  name: containerName
  properties: {
    resource: {
      id: containerName
      partitionKey: {
        kind: 'Hash'
        paths: [
          '/deviceId'
        ]
        version: 2
      }
      // Switched on without a default: only the tombstones of deleted twins have an end, and they bring it along.
      defaultTtl: -1
      indexingPolicy: loadJsonContent('../../cosmos/indexing-policy.json')
    }
    options: throughputMode == 'serverless' ? {} : provisionedOptions
  }
}

// A role of the data plane: the account knows it, and the portal's access control page does not show it.
resource contributor 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15' = {
  parent: account
  name: guid(database.id, principalId, roles['Cosmos DB Built-in Data Contributor'])
  properties: {
    principalId: principalId
    roleDefinitionId: '${account.id}/sqlRoleDefinitions/${roles['Cosmos DB Built-in Data Contributor']}'
    scope: '${account.id}/dbs/${database.name}'
  }
}

@description('Endpoint of the account.')
output endpoint string = account.properties.documentEndpoint

@description('Name of the database.')
output databaseName string = database.name

@description('Name of the container.')
output containerName string = container.name
